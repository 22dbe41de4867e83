"""Ways into the lake: landing files, importers of other tools' exports, the dead-letter store of refused lines."""
