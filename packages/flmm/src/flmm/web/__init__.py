"""The web page of `flmm demo`: ask, ground and look again, with the masks in the picture. An extra:
flmm[demo]."""
