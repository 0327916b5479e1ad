-- The suggestion at the cursor: asked for, shown, followed while it is typed, accepted, refused.

local client = require("peft-daemon.client")
local config = require("peft-daemon.config")
local ghost = require("peft-daemon.ghost")
local keys = require("peft-daemon.keys")

local M = {}

local AUTOMATIC, BY_HAND = 2, 1

---@class peft_daemon.Item
---@field text string what the text between `start` and the cursor becomes
---@field tail string what stands behind the cursor and is replaced
---@field command? lsp.Command

---@class peft_daemon.Suggestion
---@field client vim.lsp.Client
---@field buffer integer
---@field start [integer, integer] 0-based row and byte column where the items begin
---@field items peft_daemon.Item[]
---@field index integer the item that is shown
---@field by_hand boolean
---@field seen integer how many lines can be seen

---@type peft_daemon.Suggestion?
local shown
---@type { client: vim.lsp.Client, id: integer, kind: 1|2, tick: integer }?
local asked
---@type { buffer: integer, kind: 1|2, tick: integer }? the last request that was answered with nothing
local unanswered

---@return boolean
local function inserting()
  return vim.startswith(vim.api.nvim_get_mode().mode, "i")
end

---@return integer row 0-based
---@return integer column in bytes
local function cursor()
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  return row - 1, column
end

local function cancel()
  if asked then
    asked.client:cancel_request(asked.id)
    asked = nil
  end
end

local function hide()
  if shown then
    ghost.clear(shown.buffer)
  end
  shown = nil
  keys.give_back()
end

---What of an item is not in the buffer yet; nil where the text at the cursor is not its beginning.
---@param suggestion peft_daemon.Suggestion
---@param item peft_daemon.Item
---@return string?
local function rest_of(suggestion, item)
  local row, column = cursor()
  local start_row, start_column = unpack(suggestion.start)
  local line = vim.api.nvim_get_current_line()
  if row < start_row or (row == start_row and column < start_column) then
    return nil
  end
  if not vim.startswith(line:sub(column + 1), item.tail) then
    return nil
  end
  local read, between = pcall(vim.api.nvim_buf_get_text, 0, start_row, start_column, row, column, {})
  local typed = read and table.concat(between, "\n") or nil
  if not typed or #typed >= #item.text or not vim.startswith(item.text, typed) then
    return nil
  end
  return item.text:sub(#typed + 1)
end

---What is not in the buffer yet of what is shown; nil if nothing is shown that fits the text.
---@return string?
local function rest()
  if shown and shown.buffer == vim.api.nvim_get_current_buf() and inserting() then
    return rest_of(shown, shown.items[shown.index])
  end
end

---Draw what is left of the suggestion, or take it away.
local function redraw()
  local left = rest()
  if not shown or not left then
    hide()
    return
  end
  local item = shown.items[shown.index]
  local note = #shown.items > 1 and ("%d/%d"):format(shown.index, #shown.items) or nil
  local visible = left
  if item.tail ~= "" and vim.endswith(left, item.tail) and not left:find("\n") then
    visible = left:sub(1, #left - #item.tail) -- it stands there already
  end
  if visible == "" then
    hide()
    return
  end
  local window = vim.api.nvim_get_current_win()
  shown.seen = ghost.draw(window, visible, note)
  if shown.seen == 1 and vim.startswith(visible, "\n") then
    -- There is no row for the first line that has text: accepting would insert nothing that can be seen.
    ghost.make_room(window, #vim.split(visible, "\n", { plain = true }))
    shown.seen = math.max(ghost.draw(window, visible, note), 2)
  end
  keys.borrow(shown.buffer)
end

---An item of the protocol as it fits this buffer.
---@param item table
---@param encoding "utf-8"|"utf-16"|"utf-32"
---@return peft_daemon.Item? item
---@return [integer, integer]? start
local function converted(item, encoding)
  local row, column = cursor()
  local text = type(item.insertText) == "string" and item.insertText or item.insertText.value
  local range = item.range
  local start, tail = { row, column }, ""
  if range then
    if range["end"].line ~= row then
      return nil
    end
    local line = vim.api.nvim_buf_get_lines(0, range.start.line, range.start.line + 1, false)[1] or ""
    start = { range.start.line, vim.str_byteindex(line, encoding, range.start.character, false) }
    local here = vim.api.nvim_get_current_line()
    tail = here:sub(column + 1, vim.str_byteindex(here, encoding, range["end"].character, false))
  end
  return { text = (text:gsub("\r\n?", "\n")), tail = tail, command = item.command }, start
end

---@param kind 1|2
---@param on_items fun(from: vim.lsp.Client, items: peft_daemon.Item[], start?: [integer, integer])
local function ask(kind, on_items)
  local buffer = vim.api.nvim_get_current_buf()
  local now = vim.api.nvim_buf_get_changedtick(buffer)
  if kind == AUTOMATIC and asked and asked.kind == BY_HAND and asked.tick == now then
    return -- Neovim tells of an edit only when no key waits: the user may have asked since
  end
  cancel()
  local server = client.of()
  if not server or not inserting() then
    return
  end
  local params = vim.lsp.util.make_position_params(0, server.offset_encoding)
  params.context = { triggerKind = kind }
  local place = vim.api.nvim_win_get_cursor(0)
  local request ---@type integer?
  local sent
  sent, request = server:request(client.METHOD, params, function(failed, result)
    if asked and asked.id == request then
      asked = nil
    end
    local current = buffer == vim.api.nvim_get_current_buf() and inserting()
    if failed or not current or now ~= vim.api.nvim_buf_get_changedtick(buffer) then
      return
    end
    if not vim.deep_equal(place, vim.api.nvim_win_get_cursor(0)) then
      return
    end
    local items, first = {}, nil
    for _, item in ipairs(result and (result.items or result) or {}) do
      local one, start = converted(item, server.offset_encoding)
      if one and vim.deep_equal(start, first or start) then
        first = start
        items[#items + 1] = one
      end
    end
    unanswered = #items == 0 and { buffer = buffer, kind = kind, tick = now } or nil
    on_items(server, items, first)
  end, buffer)
  asked = sent and request and { client = server, id = request, kind = kind, tick = now } or nil
end

---@param server vim.lsp.Client
---@param items peft_daemon.Item[]
---@param start? [integer, integer]
---@param by_hand boolean
---@param index? integer
local function show(server, items, start, by_hand, index)
  if #items == 0 or not start then
    hide()
    return
  end
  shown = {
    client = server,
    buffer = vim.api.nvim_get_current_buf(),
    start = start,
    items = items,
    index = index or 1,
    by_hand = by_hand,
    seen = 1,
  }
  redraw()
end

---Take what came by itself. What is shown and is typed along with stays where the answer says the same or less: else it
---would become shorter and grow again with each key.
---@param server vim.lsp.Client
---@param items peft_daemon.Item[]
---@param start? [integer, integer]
local function update(server, items, start)
  local left = rest()
  if not shown or not left then
    show(server, items, start, false)
    return
  end
  local newest = items[1]
  local text = newest and start and rest_of({ start = start }, newest)
  if text and not vim.startswith(left, text) then
    show(server, items, start, false)
  elseif text then
    shown.items[shown.index].command = newest.command -- the server knows the suggestion by its newest id
  end
end

---Ask as one does while typing, if that is on.
function M.ask_automatically()
  if config.options.auto then
    ask(AUTOMATIC, update)
  end
end

---The model is loaded now: answer what was asked while it was not.
function M.retry()
  local buffer = vim.api.nvim_get_current_buf()
  local same = unanswered
    and unanswered.buffer == buffer
    and unanswered.tick == vim.api.nvim_buf_get_changedtick(buffer)
  if not shown and same and unanswered.kind == BY_HAND then
    M.suggest()
  elseif not shown and same then
    M.ask_automatically()
  end
end

---Ask by hand.
function M.suggest()
  if not client.of() then
    client.explain_absence()
    return
  end
  ask(BY_HAND, function(server, items, start)
    show(server, items, start, true)
  end)
end

---Show the next alternative; ask for alternatives first where what is shown came by itself.
function M.next()
  if not shown or not rest() then
    return M.suggest()
  end
  if shown.by_hand and #shown.items > 1 then
    shown.index = shown.index % #shown.items + 1
    redraw()
    return
  end
  local before = rest()
  ask(BY_HAND, function(server, items, start)
    if #items == 0 then
      return -- what is shown stays
    end
    show(server, items, start, true)
    if shown and rest() == before and #shown.items > 1 then
      shown.index = 2
      redraw()
    end
  end)
end

---The server has more of what is shown, which stays until that is here.
---@param more { uri: string }
function M.grow(more)
  local left = rest()
  if not shown or not left or more.uri ~= vim.uri_from_bufnr(0) then
    return
  end
  ask(AUTOMATIC, function(server, items, start)
    if shown and #shown.items > 1 then
      return -- the user chooses between alternatives
    end
    update(server, items, start)
  end)
end

---Refuse what is shown, and what would grow out of it.
---@return boolean refused
function M.dismiss()
  if not rest() then
    return false
  end
  cancel()
  client.notify_position("peft-daemon/dismissed")
  hide()
  return true
end

---Forget what is shown without refusing it, because the user went elsewhere.
function M.leave()
  cancel()
  hide()
end

---Follow a move of the cursor or a change of the window.
function M.follow()
  if shown then
    redraw()
    if not shown then
      cancel()
    end
  end
end

---The next word of a text, with the white space before it.
---@param text string
---@return string
local function next_word(text)
  local space = text:match("^%s*")
  local word = vim.fn.matchstr(text:sub(#space + 1), [=[\v^(\k+|[^[:keyword:][:space:]]+)]=])
  if word == "" then
    word = vim.fn.matchstr(text:sub(#space + 1), ".")
  end
  return space .. word
end

---The next line of a text, with a line break and the indentation before it.
---@param text string
---@return string
local function next_line(text)
  local lead = text:match("^%s*")
  return lead .. text:sub(#lead + 1):match("^[^\n]*")
end

---What can be seen of a text.
---@param text string
---@param lines integer
---@return string
local function first_lines(text, lines)
  return table.concat(vim.list_slice(vim.split(text, "\n", { plain = true }), 1, lines), "\n")
end

---Make what follows an undo step of its own.
local function break_undo()
  vim.bo.undolevels = vim.bo.undolevels
end

---Insert what is shown, or the next word or line of it.
---@param part "all"|"word"|"line"
---@return boolean accepted
function M.accept(part)
  local left = rest()
  if not shown or not left then
    return false
  end
  cancel()
  local suggestion = shown
  local item = suggestion.items[suggestion.index]
  local taken
  if part == "word" then
    taken = next_word(left)
  elseif part == "line" then
    taken = next_line(left)
  else
    taken = first_lines(left, suggestion.seen)
  end
  local whole = taken == left
  local row, column = cursor()
  local lines = vim.split(taken, "\n", { plain = true })
  break_undo()
  vim.api.nvim_buf_set_text(0, row, column, row, column + (whole and #item.tail or 0), lines)
  vim.api.nvim_win_set_cursor(0, { row + #lines, (#lines == 1 and column or 0) + #lines[#lines] })
  break_undo()
  if not whole then
    -- Whoever accepts goes on: what had no room comes into the window.
    ghost.make_room(vim.api.nvim_get_current_win(), #vim.split(left:sub(#taken + 1), "\n", { plain = true }))
    redraw()
    return true
  end
  hide()
  if item.command then
    suggestion.client:exec_cmd(item.command, { bufnr = suggestion.buffer })
  end
  return true
end

---Whether a suggestion is shown at the cursor.
---@return boolean
function M.is_shown()
  return rest() ~= nil
end

---Whether the server was asked and has not answered yet.
---@return boolean
function M.is_asking()
  return asked ~= nil
end

---The text that accepting would insert now; nil if nothing is shown.
---@return string?
function M.visible()
  local left = rest()
  return shown and left and first_lines(left, shown.seen) or nil
end

return M
