"""kd_train: students distilled under different layer matchings, written as directories that layerangles reads."""
