"""Training: a recipe in, a run directory out.  `recipe` is light to import; everything else imports torch."""
