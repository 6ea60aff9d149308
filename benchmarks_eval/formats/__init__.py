"""Published file formats: one module and one strict reader each, all giving the same questions."""
