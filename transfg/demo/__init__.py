"""`transfg demo`: a web page where trained models classify and explain pictures."""
