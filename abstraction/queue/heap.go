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
	s.up(len(s) - 1)
}

// remove takes out the item at an index.
func (h *heap) remove(i int) Item {
	s := *h
	it, last := s[i], len(s)-1
	s[i] = s[last]
	s[last] = Item{} // Lets go of the request.
	s = s[:last]
	*h = s
	if i < last && !s.down(i) {
		s.up(i)
	}
	return it
}

func (h heap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// down moves an item towards the leaves and reports whether it moved.
func (h heap) down(i int) bool {
	from := i
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	return i > from
}
