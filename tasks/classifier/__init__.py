"""`Classifier`, a scikit-learn estimator for texts; scikit-learn comes with the extra `finetune`."""

from nautile.tasks.extras import require

require("finetune", "sklearn", purpose="Classifier")

from nautile.tasks.classifier.estimator import Classifier  # noqa: E402

__all__ = ["Classifier"]
