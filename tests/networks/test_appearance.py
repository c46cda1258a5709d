"""TriplaneColor, RotNet, feature line, OPCNet."""

import torch

from avatar_viewer.networks.appearance import (
    AppearanceConfig,
    AppearanceDecoder,
    FeatureLine,
    TriplaneColor,
    TriplaneConfig,
    _PointMLP,
)

Q = 50


def trained_looking_decoder() -> AppearanceDecoder:
    torch.manual_seed(0)
    decoder = AppearanceDecoder(AppearanceConfig(Q))
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


def face() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(Q, 4), dim=-1), 0.1 * torch.randn(Q, 3)


def test_the_triplane_reads_xy_xz_and_yz_and_nothing_else():
    net = TriplaneColor(TriplaneConfig(extent=1.0, resolutions=(4,), channels=1, hidden=8))
    with torch.no_grad():
        for plane in net.planes:
            plane.zero_()
        net.planes[0][1, 0] = torch.arange(4.0)[:, None]  # xz plane: rows follow z, columns follow x
    probe = torch.tensor([[0.1, 0.2, -0.75], [0.1, -0.6, -0.75], [0.7, 0.2, -0.75], [0.1, 0.2, 0.75]])
    colors = net(probe)
    assert torch.equal(colors[0], colors[1]) and torch.equal(colors[0], colors[2])
    assert not torch.equal(colors[0], colors[3])


def test_triplane_colours_stay_within_srgb_even_outside_the_cube():
    colors = TriplaneColor(TriplaneConfig())(torch.randn(100, 3) * 10)
    assert colors.shape == (100, 3) and colors.min() >= 0 and colors.max() <= 1


def test_the_triplane_learns_a_pattern_finer_than_its_mlp_could():
    torch.manual_seed(0)
    points = torch.rand(500, 3) * 0.4 - 0.2
    target = torch.rand(500, 3)
    net = TriplaneColor(TriplaneConfig())
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        loss = (net(points) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05


def test_the_shared_code_bias_equals_concatenating_the_codes_to_every_point():
    torch.manual_seed(0)
    net = _PointMLP(5, 17, 8, 3)
    torch.nn.init.normal_(net.last.weight)
    points, codes = torch.randn(Q, 5), torch.rand(17)
    rows = torch.cat((points, codes.expand(Q, 17)), dim=-1)
    expected = net.last(torch.relu(net.second(torch.relu(net.first(rows)))))
    torch.testing.assert_close(net(points, codes), expected)


def test_the_feature_line_sums_active_units_by_intensity():
    line = FeatureLine(num_face=3)
    torch.nn.init.normal_(line.values)
    codes = torch.zeros(17)
    codes[2], codes[8] = 5.0, 2.5
    torch.testing.assert_close(line(codes), line.values[2] + 0.5 * line.values[8])


def test_a_new_decoder_changes_nothing():
    quats, means = face()
    change = AppearanceDecoder(AppearanceConfig(Q))(quats, torch.rand(17) * 5, means, 0.01 * torch.randn(Q, 3))
    assert torch.equal(change.quats, torch.tensor([1.0, 0, 0, 0]).expand(Q, 4))
    assert torch.equal(change.opacity_logits, torch.zeros(Q))


def test_zero_codes_and_offsets_change_nothing_to_the_last_bit_whatever_the_weights():
    quats, means = face()
    decoder = trained_looking_decoder()
    for rest in (None, decoder.rest(quats, means)):
        change = decoder(quats, torch.zeros(17), means, torch.zeros(Q, 3), rest)
        assert torch.equal(change.quats, torch.tensor([1.0, 0, 0, 0]).expand(Q, 4))
        assert torch.equal(change.opacity_logits, torch.zeros(Q))


def test_each_input_of_the_paper_matters():
    quats, means = face()
    decoder = trained_looking_decoder()
    codes, offsets = torch.rand(17) * 5, 0.003 * torch.randn(Q, 3)
    rotation, opacity = decoder.raw(quats, codes, means, offsets)
    for changed in (
        (quats, codes + 1, means, offsets),
        (quats, codes, means + 0.01, offsets),
        (quats, codes, means, offsets * 2),
    ):
        other_rotation, other_opacity = decoder.raw(*changed)
        assert not torch.allclose(other_rotation, rotation) and not torch.allclose(other_opacity, opacity)
    assert not torch.allclose(decoder.raw(quats.roll(1, 0), codes, means, offsets)[0], rotation)
    with torch.no_grad():
        decoder.line.values.mul_(2)
    assert not torch.allclose(decoder.raw(quats, codes, means, offsets)[1], opacity)


def test_rotations_are_unit_quaternions_and_every_parameter_learns():
    quats, means = face()
    decoder = trained_looking_decoder()
    change = decoder(quats, torch.rand(17) * 5, means, 0.003 * torch.randn(Q, 3))
    torch.testing.assert_close(change.quats.norm(dim=-1), torch.ones(Q))
    (change.opacity_logits.square().sum() + change.quats[:, 1].sum()).backward()
    for name, parameter in decoder.named_parameters():
        if not name.endswith("last.bias"):  # cancels: the answer at rest is subtracted
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_an_opacity_decoder_without_aus_does_not_hear_them():
    torch.manual_seed(0)
    decoder = AppearanceDecoder(AppearanceConfig(12, opacity_hears_codes=False))
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    quats, means, offsets = torch.randn(12, 4), torch.randn(12, 3), 0.003 * torch.ones(12, 3)
    none, many = (decoder(quats, codes, means, offsets) for codes in (torch.zeros(17), torch.full((17,), 4.0)))
    torch.testing.assert_close(none.opacity_logits, many.opacity_logits)
    assert not torch.allclose(none.quats, many.quats)
