"""Measuring and deciding: clocks, statistics, verdicts, change points, LoadGen."""
