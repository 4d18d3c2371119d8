"""Tests of paratree; the folders mirror the package."""
