"""Docker's nouns: containers, images, volumes, networks, events."""
