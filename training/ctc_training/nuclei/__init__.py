"""The nucleus network: real and simulated labelled images, augmentation, training, measuring."""
