"""What reads the pyramid: proposals, boxes with classes, masks."""
