"""Whether tuning pays: strategies on the same footing, measured, compared and written down."""
