"""Training of the network: windows of data, the skorch net, seeding."""
