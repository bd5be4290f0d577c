"""The order of the gallery: from the first steps to the special cases."""

from sphinx_gallery.sorting import ExplicitOrder

EXAMPLES = [
    "plot_tutorial.py",
    "plot_smooth_rates.py",
    "plot_rates_and_psths.py",
    "plot_calcium.py",
    "plot_decode_velocity.py",
    "plot_decode_position.py",
    "plot_live.py",
    "plot_demo.py",
    "plot_ensemble.py",
    "plot_sessions.py",
    "plot_neuron_importance.py",
    "drop_neurons_of_a_recording.py",
    "plot_nlb.py",
]


class InReadingOrder(ExplicitOrder):
    """Sorts the examples of the gallery; Sphinx wants it as a class of its own."""

    def __init__(self, src_dir):
        super().__init__(EXAMPLES)
