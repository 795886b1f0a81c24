"""What the tests share: engines to drive, a registry, images, the leak check."""
