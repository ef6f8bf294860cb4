"""From a plan and its trainings to a result: verdict, files, figures, what to be careful of."""
