"""What the report and the explorer have in common: one sample read whole, text made safe to show, the look of a page."""
