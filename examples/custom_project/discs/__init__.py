"""Find discs in noisy pictures: a network, images, a loss and a metric of one's own."""
