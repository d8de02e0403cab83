"""What the chaos tests are built of: real servers and workers that cost milliseconds to restart."""
