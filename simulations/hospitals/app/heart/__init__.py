"""Heart disease from what four hospitals measured, learnt without moving a patient's row."""
