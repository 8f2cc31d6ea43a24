"""What Daybreak shows of itself: metrics and logs."""
