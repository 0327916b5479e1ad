"""The user's own tests as judges: what they need, which holes they notice, and what they say of an answer."""
