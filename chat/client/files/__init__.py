"""Files, from the offer to the verified copy."""
