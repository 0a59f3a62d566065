"""DeepSpeed behind one class: nothing else imports it."""
