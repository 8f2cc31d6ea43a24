"""Measures what metrics, traces and logs cost. One run times submits and steps with them and without them."""
