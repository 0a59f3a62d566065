"""Files of trained heads, and what they were trained with."""
