"""Trains, samples and scores the tiny Wan that ships in the package."""
