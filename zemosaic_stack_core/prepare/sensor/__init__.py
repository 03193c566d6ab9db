"""What a sensor does to a frame, undone: calibration, hot pixels, the color pattern."""
