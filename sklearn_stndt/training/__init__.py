"""Training of the network: settings, objective, the skorch net, calibration."""
