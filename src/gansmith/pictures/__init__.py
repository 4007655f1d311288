"""Pictures: grids, plots and animations."""
