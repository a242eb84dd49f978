"""What the tracks share: settings that refuse what they do not know, and a noise predictor that is told a condition."""

from __future__ import annotations

import pytest
import torch

from extensions.blocks.conditional import EpsMLPNull, Guided
from extensions.blocks.config import as_settings, load_config
from HW3.diffusion import DiffusionConfig, GaussianDiffusion
from HW3.plumbing.errors import UsageError


@pytest.fixture
def default(tmp_path):
    path = tmp_path / "default.yaml"
    path.write_text("vae:\n  epochs: 30\n  lr: 0.001\n  deep: true\nname: x\n")
    return path


def test_later_settings_win(default, tmp_path):
    (tmp_path / "a.yaml").write_text("vae: {epochs: 2, lr: 1}\n")
    (tmp_path / "b.yaml").write_text("vae:\n  epochs: 3\n")
    config = load_config(default, tmp_path / "a.yaml", tmp_path / "b.yaml", changes=["vae.deep=false", "name="])
    assert as_settings(config) == {"vae": {"epochs": 3, "lr": 1.0, "deep": False}, "name": ""}


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3"])
def test_a_number_may_be_written_as_people_do(default, text):
    assert load_config(default, changes=[f"vae.lr={text}"]).vae.lr == 0.001


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("vae.epoch=2", "no key vae.epoch: did you mean vae.epochs?"),
        ("vea.epochs=2", "no key vea.epochs: did you mean vae.epochs?"),
        ("nonsense=2", "no key nonsense: there are vae.epochs, vae.lr"),
        ("vae=2", "vae has keys of its own: vae.epochs"),
        ("vae.epochs=2.5", "vae.epochs must be an integer, 1 or more, not 2.5"),
        ("vae.epochs=0", "not 0"),
        ("vae.epochs=true", "not True"),
        ("vae.lr=-1", "vae.lr must be a number, 0 or more, not -1.0"),
        ("vae.lr=.nan", "not nan"),
        ("vae.lr=fast", "not 'fast'"),
        ("vae.deep=1", "vae.deep must be true or false"),
        ("name=3", "name must be a text"),
        ("vae.epochs", "write key=value"),
        ("name=[", "no YAML"),
    ],
)
def test_what_is_no_setting_is_refused(default, change, says):
    with pytest.raises(UsageError) as error:
        load_config(default, changes=[change])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_with_an_unknown_key_is_named(default, tmp_path):
    (tmp_path / "mine.yaml").write_text("vae:\n  learning_rate: 2\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: there is no key vae\.learning_rate"):
        load_config(default, tmp_path / "mine.yaml")
    with pytest.raises(UsageError, match=r"cannot read .*none\.yaml"):
        load_config(default, tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match=r"list\.yaml: write a key and a value per line"):
        load_config(default, tmp_path / "list.yaml")


# -- the noise predictor ----------------------------------------------------------------------------------


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = EpsMLPNull(6, cond_dim=4, time_dim=8, hidden_dim=16, cond_dropout=0.5)
    torch.nn.init.normal_(net.head.weight)
    return net.eval()


def batch(n):
    torch.manual_seed(1)
    return torch.randn(n, 6), torch.randint(0, 1000, (n,)), torch.randn(n, 4)


def test_rows_of_a_batch_are_not_mixed(net):
    x, t, cond = batch(5)
    x.requires_grad_(), cond.requires_grad_()
    net(x, t, cond)[2].sum().backward()
    for grad in (x.grad, cond.grad):
        assert grad[2].abs().sum() > 0
        assert grad[[0, 1, 3, 4]].abs().sum() == 0


def test_a_batch_is_its_rows(net):
    x, t, cond = batch(5)
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(net(x, t, cond), alone)


def test_the_condition_the_time_and_the_null_token_matter(net):
    x, t, cond = batch(5)
    given = net(x, t, cond)
    for other in (net(x, t, cond.roll(1, 0)), net(x, (t + 500) % 1000, cond), net(x, t), net(x, t, cond * 0)):
        assert (other - given).abs().amax(dim=1).min() > 1e-3
    assert not torch.allclose(net(x, t), net(x, t, cond * 0))  # zeros are a condition, not the token
    net(x, t).sum().backward()
    assert net.null.grad.abs().sum() > 0


def test_training_hides_conditions_row_by_row(net):
    x, t, cond = batch(1000)
    with_cond, without = net(x, t, cond), net(x, t)
    got = net.train()(x, t, cond)
    is_hidden = torch.isclose(got, without, atol=1e-5).all(dim=1)
    assert torch.isclose(got, with_cond, atol=1e-5).all(dim=1).logical_xor(is_hidden).all()
    assert 0.4 < is_hidden.float().mean() < 0.6


@pytest.mark.parametrize(("scale", "expected"), [(0.0, "without"), (1.0, "with"), (3.0, "beyond")])
def test_guidance_goes_from_without_to_with_and_beyond(net, scale, expected):
    x, t, cond = batch(5)
    with_cond, without = net(x, t, cond), net(x, t)
    values = {"without": without, "with": with_cond, "beyond": without + 3 * (with_cond - without)}
    torch.testing.assert_close(Guided(net, scale)(x, t, cond), values[expected])


def test_samplers_take_it_with_and_without_a_condition(net):
    diffusion = GaussianDiffusion(Guided(net, 2.0), DiffusionConfig(timesteps=5))
    assert diffusion.sample_ddpm(3, "cpu", torch.eye(4)[:3], (6,)).shape == (3, 6)
    assert GaussianDiffusion(net, diffusion.config).sample_ddpm(3, "cpu", None, (6,)).shape == (3, 6)
