"""Files of every kind: written whole, named in one way, read as text, JSON or plain pickles."""
