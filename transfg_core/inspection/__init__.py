"""What a data set is like: its faults (`transfg data check`) and numbers (`transfg data stats`)."""
