"""Small models of each framework, built natively, with what the framework itself says of them."""
