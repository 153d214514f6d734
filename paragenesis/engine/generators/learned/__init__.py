"""What learned generators share: data, context, backbone, training and checkpoints."""
