"""Nights that never were: frames of stars, satellites and cosmic rays whose truth is known."""
