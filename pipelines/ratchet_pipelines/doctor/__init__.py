"""`ratchet doctor`: is everything there that the first night needs? Each check looks at one part."""
