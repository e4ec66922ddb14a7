"""The accuracy experiment: DEQs, their explicit equivalents and plain networks on real data, on equal terms."""

from verification.experiments.accuracy.data import LabelledData as LabelledData
from verification.experiments.accuracy.data import image_data as image_data
from verification.experiments.accuracy.data import prepare as prepare
from verification.experiments.accuracy.networks import MODELS as MODELS
from verification.experiments.accuracy.networks import RandomNetwork as RandomNetwork
from verification.experiments.accuracy.networks import architectures as architectures
from verification.experiments.accuracy.study import StudySize as StudySize
from verification.experiments.accuracy.study import accuracy_study as accuracy_study
