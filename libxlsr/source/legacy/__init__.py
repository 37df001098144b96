"""Images of Xen 4.5 and older, converted to what Xen writes today."""
