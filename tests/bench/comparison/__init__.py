"""miwid beside its peers. `scenarios` says what is compared, `runner` does it, `report` tells; `run` explains the method."""
