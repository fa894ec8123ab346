"""The model folder: what its files say of the network, its engine and where they come from."""
