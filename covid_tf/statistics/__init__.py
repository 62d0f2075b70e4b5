"""ROC, groups and operating points: numbers in, numbers out."""
