"""Data that are one file per picture: found, listed, read and kept in mind, however many there are."""
