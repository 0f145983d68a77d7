"""Backbones on several feature sets, over seeds: the grid, its statistics, its report."""
