"""What tracks with pictures share: attention that keeps rows apart, losses that reach their floor, phases as data."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from extensions.blocks.adversarial import conv_discriminator, discriminator_loss
from extensions.blocks.augment import varied
from extensions.blocks.config import load_config
from extensions.blocks.features import VGG16, SmallClassifier, VGG16Features, load_vgg16, vgg16_weights
from extensions.blocks.losses import CentreLoss, perceptual_loss
from extensions.blocks.phases import check_points, is_used, weight_at
from extensions.blocks.residual import AttentionBlock, ChannelAttention, SpatialAttention
from extensions.blocks.resvae import ResVAE
from HW3.plumbing.errors import UsageError
from HW3.vae import kl_divergence

# -- residual blocks and the VAE of them ------------------------------------------------------------------------


@pytest.mark.parametrize("block", [AttentionBlock(16), ChannelAttention(16), SpatialAttention()])
def test_attention_does_not_cross_the_batch(block):
    torch.manual_seed(0)
    h = torch.randn(5, 16, 8, 8, requires_grad=True)
    block(h)[2].square().sum().backward()
    assert h.grad[2].abs().sum() > 0
    assert h.grad[[0, 1, 3, 4]].abs().sum() == 0
    alone = torch.cat([block(h[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(block(h), alone, atol=1e-5, rtol=1e-4)


def test_attention_weighs_channels_and_places():
    torch.manual_seed(0)
    h = torch.randn(2, 16, 8, 8)
    by_channel = ChannelAttention(16)(h) / h  # one factor for all places of a channel
    torch.testing.assert_close(by_channel, by_channel[..., :1, :1].expand_as(h))
    assert by_channel[0, :, 0, 0].unique().numel() > 1
    by_place = SpatialAttention()(h) / h  # one factor for all channels of a place
    torch.testing.assert_close(by_place, by_place[:, :1].expand_as(h))
    assert by_place[0, 0].unique().numel() > 1
    assert SpatialAttention().conv.kernel_size == (7, 7)
    assert ChannelAttention(64).weigh[0].out_features == 8


@pytest.mark.parametrize(("size", "widths"), [(32, (4, 8, 8, 16)), (64, (4, 8, 8, 8, 16))])
def test_a_vae_of_either_size_has_the_shapes_for_any_batch(size, widths):
    vae = ResVAE(size, 3, 10, widths)
    for n in (1, 3):
        x = torch.rand(n, 3, size, size)
        recon, mu, logvar = vae(x)
        assert (recon.shape, mu.shape, logvar.shape) == (x.shape, (n, 10), (n, 10))
        assert recon.min() >= 0
        assert recon.max() <= 1


def test_all_of_the_vae_is_used_and_rows_stay_apart():
    """No layer, and no way around z, is stored for nothing."""
    torch.manual_seed(0)
    vae = ResVAE(32, 3, 10, (4, 8, 8, 16))
    x = torch.rand(4, 3, 32, 32, requires_grad=True)
    recon, mu, logvar = vae(x)
    (recon[1].square().sum() + mu[1].square().sum() + logvar[1].square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())
    assert x.grad[1].abs().sum() > 0
    assert x.grad[[0, 2, 3]].abs().sum() == 0
    z = torch.randn(2, 10)
    before, kept = vae.decode(z), set(vars(vae))
    vae.encode(torch.rand(4, 3, 32, 32))
    assert torch.equal(vae.decode(z), before)  # the decoder remembers no encoder
    assert set(vars(vae)) == kept  # nor does anybody else


def test_widths_that_do_not_fit_the_size_are_refused():
    with pytest.raises(UsageError, match=r"4 widths of a VAE make images of 32 pixels, and these have 64: .* 64, 32"):
        ResVAE(64, 3, 10, (4, 8, 8, 16))


# -- losses -----------------------------------------------------------------------------------------------------


def test_a_large_kl_still_has_a_gradient():
    mu = torch.full((1, 4), 1e4, requires_grad=True)
    logvar = torch.full((1, 4), 20.0, requires_grad=True)
    kl_divergence(mu, logvar).mean().backward()
    assert mu.grad.min() == 1e4
    assert logvar.grad.min() > 1e7


def test_centres_are_running_means_of_their_class():
    loss = CentreLoss(3, 2, decay=0.9)
    first = torch.tensor([[1.0, 1.0], [3.0, 3.0], [10.0, 0.0]])
    loss.update(first, torch.tensor([0, 0, 1]))
    assert loss.centres.tolist() == [[2, 2], [10, 0], [0, 0]]  # the first mean as it is; none of class 2
    loss.update(torch.tensor([[12.0, 2.0]]), torch.tensor([0]))
    torch.testing.assert_close(loss.centres, torch.tensor([[3.0, 2.0], [10.0, 0.0], [0.0, 0.0]]))
    loss.update(torch.tensor([[5.0, 5.0]]), torch.tensor([2]))
    assert loss.centres[2].tolist() == [5, 5]


def test_the_centre_loss_is_a_distance_to_the_own_class():
    loss = CentreLoss(2, 3)
    loss.update(torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.0, 0.0]]), torch.tensor([0, 1]))
    z = loss.centres.clone().requires_grad_()
    assert loss(z, torch.tensor([0, 1])) == 0  # the floor
    far = loss(z, torch.tensor([1, 0]))
    assert far.item() == pytest.approx((25 + 4 + 9) / 3)
    far.backward()
    assert z.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())
    assert {"centres", "is_known"} <= loss.state_dict().keys()  # a checkpoint has them


def test_the_perceptual_loss_is_0_for_equal_images_and_reaches_the_reconstruction_only():
    torch.manual_seed(0)
    net = SmallClassifier(2, 3, (4, 8)).requires_grad_(False)
    x, recon = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32, requires_grad=True)
    assert perceptual_loss(net.features, x, x).item() == 0
    loss = perceptual_loss(net.features, recon, x)
    loss.backward()
    assert loss > 0.01
    assert recon.grad.abs().sum() > 0
    assert x.grad is None
    assert all(p.grad is None for p in net.parameters())
    larger = perceptual_loss(lambda images: [10 * maps for maps in net.features(images)], recon, x)
    torch.testing.assert_close(larger, loss)  # a weight means the same for every network


def test_a_discriminator_of_any_depth_gives_logits():
    """Black against white: below what a sigmoid in front of a loss on logits could reach, 1.0."""
    torch.manual_seed(0)
    net = conv_discriminator(16, 3, (4, 8, 8))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    real, fake = torch.ones(4, 3, 16, 16), torch.zeros(4, 3, 16, 16)
    for _ in range(60):
        loss = discriminator_loss(net(real), net(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert net(real[:1]).shape == (1,)
    with pytest.raises(UsageError, match="3 widths of a discriminator need images that 8 divides, not 20"):
        conv_discriminator(20, 3, (4, 8, 8))


# -- perceptual features ------------------------------------------------------------------------------------------


def test_features_are_maps_from_fine_to_coarse_and_rows_stay_apart():
    net = SmallClassifier(2, 3, (4, 8, 16))
    x = torch.rand(3, 3, 32, 32)
    assert [maps.shape for maps in net.features(x)] == [(3, 4, 16, 16), (3, 8, 8, 8), (3, 16, 4, 4)]
    assert net(x).shape == (3, 2)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), atol=1e-5, rtol=1e-4)


@pytest.fixture
def vgg16_file(tmp_path, monkeypatch):
    """A file like torchvision's, in what would be torch.hub's cache: the layers that matter and some that do not."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    state = {f"features.{name}": value for name, value in VGG16Features().layers.state_dict().items()}
    path = tmp_path / "hub/checkpoints" / VGG16
    path.parent.mkdir(parents=True)
    torch.save({**state, "features.28.weight": torch.zeros(1), "classifier.0.weight": torch.zeros(1)}, path)
    return path


def test_vgg16_is_taken_from_the_cache_or_a_file_up_to_relu3_3(vgg16_file, tmp_path):
    assert vgg16_weights("") == vgg16_file
    assert vgg16_weights("other.pth").name == "other.pth"
    net = load_vgg16(vgg16_file)
    convolutions = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [64, 64, 128, 128, 256, 256, 256]
    (maps,) = net.features(torch.rand(2, 3, 32, 32))
    assert maps.shape == (2, 256, 8, 8)
    assert maps.min() == 0  # after its ReLU
    assert not any(p.requires_grad for p in net.parameters())
    assert torch.equal(net.layers[0].weight, torch.load(vgg16_file)["features.0.weight"])


def test_without_a_file_there_is_no_vgg16_and_no_download(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("a download"))
    assert vgg16_weights("") is None


@pytest.mark.parametrize("content", [None, b"no weights", {"a": torch.zeros(1)}, {"features.0.weight": torch.zeros(2)}])
def test_a_file_without_the_weights_is_one_line(content, tmp_path):
    path = tmp_path / "vgg.pth"
    if isinstance(content, dict):
        torch.save(content, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        load_vgg16(path)
    assert str(path) in str(error.value)
    assert VGG16 in str(error.value)
    assert "\n" not in str(error.value)


# -- phases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "weight"), [(0, 0.1), (0.2, 0.1), (0.3, 0.2), (0.4, 0.3), (0.5, 0.3), (0.7, 0.15), (0.8, 0), (1, 0)]
)
def test_weights_go_in_straight_lines_from_point_to_point(share, weight):
    points = [[0.2, 0.1], [0.4, 0.3], [0.6, 0.3], [0.8, 0.0]]
    assert weight_at(points, share) == pytest.approx(weight)


def test_one_point_is_a_constant():
    assert [weight_at([[0.5, 2.0]], share) for share in (0, 0.5, 1)] == [2, 2, 2]
    assert is_used([[0.0, 0.0], [1.0, 0.1]])
    assert not is_used([[0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([], "must be pairs"),
        ([[0.1]], "must be pairs"),
        ([[0.1, 2, 3]], "must be pairs"),
        ([[1.5, 2]], "from 0 to 1"),
        ([[0.5, 1], [0.2, 2]], "must grow"),
        ([[0.5, 1], [0.5, 2]], "must grow"),
    ],
)
def test_points_that_are_none_are_refused(points, says):
    with pytest.raises(UsageError, match=says) as error:
        check_points(points, "vae.kl_weight")
    assert str(error.value).startswith("vae.kl_weight")


def test_settings_may_be_lists(tmp_path):
    path = tmp_path / "default.yaml"
    path.write_text("widths: [64, 128]\nkl: [[0.0, 0.1]]\n")
    config = load_config(path, changes=["widths=[8, 16, 32]", "kl=[[0.2, 0], [1, 1e-3]]"])
    assert (config.widths, config.kl) == ([8, 16, 32], [[0.2, 0.0], [1.0, 0.001]])
    for change, says in {
        "widths=8": "widths must be a list such as [64, 128], not 8",
        "widths=[]": "must be a list",
        "widths=[8, 0]": "each of the list must be an integer, 1 or more, not 0",
        "kl=[0.2, 0.3]": "must be a list such as [0.0, 0.1], not 0.2",
        "kl=[[0.2, -1]]": "must be a number, 0 or more, not -1",
    }.items():
        with pytest.raises(UsageError) as error:
            load_config(path, changes=[change])
        assert says in str(error.value)


# -- varied pictures --------------------------------------------------------------------------------------------------


def test_pictures_are_mirrored_half_of_the_time_and_otherwise_left_alone():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 8, 8).expand(400, -1, -1, -1)
    out = varied(x)
    as_it_is, mirrored = (torch.isclose(out, other, atol=1e-5).flatten(1).all(dim=1) for other in (x, x.flip(3)))
    assert as_it_is.logical_xor(mirrored).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_each_picture_varies_in_its_own_way_and_stays_a_picture():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16).expand(50, -1, -1, -1)
    for more in ({"rotation": 10.0}, {"shift": 0.1}, {"jitter": 0.2}):
        out = varied(x, **more)
        assert out.shape == x.shape
        assert out.min() >= 0
        assert out.max() <= 1
        assert len(out.flatten(1).unique(dim=0)) > 45
        assert (out - x).abs().flatten(1).mean(dim=1).max() > 0.02


def test_a_rotation_is_no_larger_than_asked_for():
    """Of a picture whose one bright place is on the right, the angle of that place."""
    torch.manual_seed(0)
    x = torch.zeros(200, 1, 65, 65)
    x[:, :, 30:35, 55:60] = 1
    out = varied(x, rotation=10.0)
    places = torch.arange(65.0) - 32
    down, right = ((out * p).sum(dim=(1, 2, 3)) / out.sum(dim=(1, 2, 3)) for p in (places[:, None], places))
    degrees = (down / right.abs()).atan() * 180 / math.pi
    assert degrees.abs().max() <= 10.5
    assert degrees.max() > 7
    assert degrees.min() < -7
