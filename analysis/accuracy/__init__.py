"""The accuracy experiment: DEQs, their explicit equivalents and plain networks on real data, on equal terms."""

from analysis.accuracy.data import LabelledData as LabelledData
from analysis.accuracy.data import image_data as image_data
from analysis.accuracy.data import prepare as prepare
from analysis.accuracy.networks import MODELS as MODELS
from analysis.accuracy.networks import RandomNetwork as RandomNetwork
from analysis.accuracy.networks import architectures as architectures
from analysis.accuracy.study import StudySize as StudySize
from analysis.accuracy.study import accuracy_study as accuracy_study
