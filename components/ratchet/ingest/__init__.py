"""Ways into the lake: landing files, importers of other tools' exports, the store of refused lines."""
