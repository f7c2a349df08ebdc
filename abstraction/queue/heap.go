// SPDX-License-Identifier: Apache-2.0

package queue

// heap is a binary min-heap of items by deadline, then by arrival. It is written out because
// container/heap would box every item.
type heap []Item

func (h heap) less(i, j int) bool {
	if h[i].deadline != h[j].deadline {
		return h[i].deadline < h[j].deadline
	}
	return h[i].seq < h[j].seq
}

func (h *heap) push(it Item) {
	*h = append(*h, it)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s.less(i, parent) {
			return
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (h *heap) pop() Item {
	s := *h
	top, last := s[0], len(s)-1
	s[0] = s[last]
	s[last] = Item{} // Lets go of the request.
	s = s[:last]
	*h = s
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && s.less(child+1, child) {
			child++
		}
		if !s.less(child, i) {
			return top
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
}
