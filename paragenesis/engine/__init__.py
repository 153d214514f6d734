"""The science and the loop, without Ray."""
