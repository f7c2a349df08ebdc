// SPDX-License-Identifier: Apache-2.0

package ensemble

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/bench/cifar"
	"github.com/clipper-serving/clipper/internal/recorded"
)

// small is four images and two networks, of which the second is right about three.
func small() *suite {
	one := recorded.NewTable([]float64{1, 0, 1, 0, 1, 0, 1, 0}, 2)
	two := recorded.NewTable([]float64{0, 1, 0, 1, 1, 0, 1, 0}, 2)
	return &suite{System: &cifar.System{CIFAR: &recorded.CIFAR{Truth: []int64{1, 1, 1, 0}, Networks: []*recorded.Table{one, two}}}}
}

func TestScore(t *testing.T) {
	s := small()
	replies := []reply{{image: 0, answered: true, class: 1}, {image: 1, class: 0}, {image: 2, answered: true, class: 0}, {image: 3, class: 0}}
	require.Equal(t, scored{share: 0.5, err: 0.5, wrong: 1}, s.score(replies))
	others := []reply{{image: 0, answered: true}, {image: 1, answered: true, class: 1}, {image: 2, answered: true}, {image: 3, answered: true, class: 1}}
	rest := unanswered(replies, others)
	require.Equal(t, others[1:2], rest[:1])
	require.Equal(t, scored{share: 1, err: 0.5, wrong: 1}, s.score(rest))
	require.Equal(t, scored{}, s.score(nil))
}

func TestHalf(t *testing.T) {
	s := small()
	require.Equal(t, []int{0, 1}, s.half(0))
	require.Equal(t, []int{2, 3}, s.half(1))
}

func TestPaperSingle(t *testing.T) {
	s := small()
	require.Equal(t, paperSingles[0], s.paperSingle(0), "the worst")
	require.Equal(t, paperSingles[1], s.paperSingle(1))
}

func TestClass(t *testing.T) {
	input := cifar.Input(7, 0)[0]
	require.EqualValues(t, 7, class(input))
}
